// A job's terminal (xterm.js) over a WebSocket; see console/live/terminal.py.
"use strict";

(() => {
  const place = document.getElementById("terminal");
  const said = document.getElementById("said");
  const used = document.getElementById("used");
  const again = document.getElementById("again");
  const encoder = new TextEncoder();
  const MOST_MESSAGE = 32 * 1024;
  const term = new Terminal({
    cursorBlink: true,
    fontFamily: "ui-monospace, monospace",
    fontSize: 14,
    screenReaderMode: true,
    scrollback: 5000,
    // What a job calls a link leads nowhere.
    linkHandler: { activate: () => {} },
  });
  const fit = new FitAddon.FitAddon();
  let socket = null;
  let live = false;

  function say(words) {
    said.textContent = words;
  }

  function send(told) {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(told));
  }

  function type(bytes) {
    // What is answered to what was shown long ago is nothing that the job has asked.
    if (!live || socket?.readyState !== WebSocket.OPEN) return;
    for (let at = 0; at < bytes.length; at += MOST_MESSAGE) socket.send(bytes.subarray(at, at + MOST_MESSAGE));
  }

  function size() {
    fit.fit();
    return { rows: Math.max(1, Math.min(term.rows, 1000)), columns: Math.max(1, Math.min(term.cols, 1000)) };
  }

  function open(sharing) {
    const address = new URL(place.dataset.live, location.href);
    address.protocol = "wss:";
    const mine = new WebSocket(address);
    let shown = 0;
    socket?.close();
    socket = mine;
    live = false;
    used.hidden = again.hidden = true;
    mine.binaryType = "arraybuffer";
    mine.onopen = () => {
      term.reset();
      send({ token: place.dataset.token, sharing, ...size() });
    };
    mine.onmessage = (event) => {
      if (mine !== socket) return;
      if (typeof event.data !== "string") {
        const bytes = new Uint8Array(event.data);
        term.write(bytes, () => {
          shown += bytes.length;
          if (mine === socket) send({ shown });
        });
        return;
      }
      const told = JSON.parse(event.data);
      if (told.live) {
        term.write("", () => {
          live = mine === socket;
          say("Open");
          term.focus();
        });
      }
      if (told.over) {
        live = false;
        say("Closed: " + told.over.words);
        used.hidden = !told.over.used;
        again.hidden = !told.over.again;
        socket = null;
      }
    };
    mine.onclose = () => {
      if (mine !== socket) return;
      live = false;
      socket = null;
      again.hidden = false;
      say("Closed: the connection has ended");
    };
  }

  term.loadAddon(fit);
  term.open(place);
  term.onData((text) => type(encoder.encode(text)));
  term.onBinary((text) => type(Uint8Array.from(text, (char) => char.charCodeAt(0))));
  term.attachCustomKeyEventHandler((event) => {
    if (event.ctrlKey && event.shiftKey && event.code === "ArrowUp") {
      if (event.type === "keydown") document.querySelector("header a").focus();
      event.preventDefault();
      return false;
    }
    return true;
  });
  for (const button of document.querySelectorAll("button[data-sharing]")) {
    button.addEventListener("click", () => open(button.dataset.sharing));
  }
  window.addEventListener("resize", () => send(size()));
  say("Opening");
  open("alone");
})();
