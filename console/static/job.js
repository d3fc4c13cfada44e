// One job as it changes. All that is shown is set as text, never as HTML.
"use strict";

(() => {
  const MOST_PIECES = 4000;
  const line = document.querySelector("[data-live]");
  const facts = document.getElementById("facts");
  const output = document.getElementById("output");
  if (!line) return;

  function tell(name, text) {
    let fact = [...facts.children].find((one) => one.dataset.fact === name);
    if (!fact) {
      fact = document.createElement("div");
      fact.dataset.fact = name;
      fact.append(document.createElement("dt"), document.createElement("dd"));
      fact.firstChild.textContent = name;
      facts.append(fact);
    }
    const shown = fact.querySelector("dd");
    if (shown.textContent !== text) shown.textContent = text;
  }

  if (output) output.scrollTop = output.scrollHeight;

  listen(line, {
    status(told) {
      facts.className = told.mood;
      for (const form of document.querySelectorAll("form[data-act]")) {
        form.hidden = !told.acts.includes(form.dataset.act);
      }
      for (const fact of [...facts.children]) {
        const name = fact.dataset.fact;
        if (name && name !== "Used" && !(name in told.facts)) fact.remove();
      }
      for (const [name, text] of Object.entries(told.facts)) tell(name, text);
    },
    usage(told) {
      tellUsage(told);
    },
    output(pieces) {
      const atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
      for (const [stream, text] of pieces) {
        const span = document.createElement("span");
        span.className = stream;
        span.textContent = stream === "gap" ? "\n… what was here is not shown …\n" : text;
        output.append(span);
      }
      while (output.childNodes.length > MOST_PIECES) output.firstChild.remove();
      if (atEnd) output.scrollTop = output.scrollHeight;
    },
  });
})();
