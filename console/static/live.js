// Server-sent events for as long as the page is looked at: a browser has few connections.
"use strict";

function listen(line, handlers) {
  let source = null;
  let over = false;
  let last = "";

  function say(words) {
    line.textContent = words;
  }

  function open() {
    if (over || source !== null || document.hidden) return;
    const address = new URL(line.dataset.live, location.href);
    if (last) address.searchParams.set("from", last);
    source = new EventSource(address);
    source.onopen = () => say("Live");
    source.onerror = () => {
      const closed = source.readyState === EventSource.CLOSED;
      say(closed ? "Not live: load the page again to see how things are now" : "Not live: the server is asked again");
    };
    source.addEventListener("over", (event) => {
      const told = JSON.parse(event.data);
      if (!told.again) close();
      over = !told.again;
      say("Not live: " + told.words);
    });
    for (const [kind, handle] of Object.entries(handlers)) {
      source.addEventListener(kind, (event) => {
        if (event.lastEventId) last = event.lastEventId;
        handle(JSON.parse(event.data));
      });
    }
    source.addEventListener("end", () => {
      over = true;
      close();
      say("");
    });
  }

  function close() {
    if (source !== null) source.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else open();
  });
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
}
