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

  // Whether a line has begun, of each stream: times stand in front of lines alone.
  const begun = {};
  for (const stream of output ? ["stdout", "stderr"] : []) {
    const last = [...output.getElementsByClassName(stream)].pop();
    begun[stream] = last !== undefined && !last.textContent.endsWith("\n");
  }

  function add(kind, text) {
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = text;
    output.append(span);
  }

  function addLines(stream, text, time) {
    for (const line of text.match(/[^\n]*\n|[^\n]+/g) || []) {
      if (!begun[stream]) add("time", time + " ");
      add(stream, line);
      begun[stream] = !line.endsWith("\n");
    }
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
      for (const [stream, text, time] of pieces) {
        if (stream === "gap") {
          add("gap", "\n… what was here is not shown …\n");
          begun.stdout = begun.stderr = false;
        } else if (time) addLines(stream, text, time);
        else add(stream, text);
      }
      while (output.childNodes.length > MOST_PIECES) output.firstChild.remove();
      if (atEnd) output.scrollTop = output.scrollHeight;
    },
  });
})();
