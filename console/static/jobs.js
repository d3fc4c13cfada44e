// The list of jobs, as it changes. All that is shown is set as text, never as HTML.
"use strict";

(() => {
  const body = document.querySelector("tbody");
  const none = document.getElementById("none");
  const line = document.querySelector("[data-live]");

  const form = document.getElementById("several");
  const all = document.querySelector("#all input");

  function boxes() {
    return [...body.querySelectorAll("input")];
  }

  all.parentElement.hidden = false;
  all.addEventListener("change", () => {
    for (const box of boxes()) box.checked = all.checked;
  });

  function chooser(job) {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.name = "job";
    box.value = job.id;
    box.setAttribute("form", "several");
    box.setAttribute("aria-label", "Choose " + job.short);
    return box;
  }

  function cell(name, text, tag, mood) {
    const td = document.createElement("td");
    td.dataset.name = name;
    if (!tag) {
      td.textContent = text;
      return td;
    }
    const inner = document.createElement(tag);
    inner.textContent = text;
    if (mood) inner.className = "state " + mood;
    td.append(inner);
    return td;
  }

  function row(job) {
    const tr = document.createElement("tr");
    const first = document.createElement("td");
    const link = document.createElement("a");
    link.href = "/jobs/" + encodeURIComponent(job.id);
    link.title = job.id;
    link.textContent = job.short;
    if (job.choose) first.append(chooser(job), " ");
    first.append(link);
    tr.append(
      first,
      cell("Name", job.name),
      cell("Owner", job.owner),
      cell("Tenant", job.tenant),
      cell("Labels", job.labels),
      cell("Started", job.created),
      cell("Took", job.took),
      cell("State", job.state, "span", job.mood),
      cell("Command", job.command, "code"),
    );
    return tr;
  }

  listen(line, {
    jobs(rows) {
      // The keyboard stays where it is.
      const held = document.activeElement?.closest("tbody a, tbody input");
      const chosen = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
      body.replaceChildren(...rows.map(row));
      none.hidden = rows.length > 0;
      form.hidden = !rows.some((job) => job.choose);
      for (const box of boxes()) box.checked = chosen.has(box.value);
      const same = (one) => (held.title ? one.title === held.title : one.value === held.value);
      if (held) [...body.querySelectorAll(held.localName)].find(same)?.focus();
    },
  });
})();
