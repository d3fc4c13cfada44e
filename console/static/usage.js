// Who uses what, as it changes. All that is shown is set as text, never as HTML.
"use strict";

(() => {
  const body = document.querySelector("#usage tbody");
  const none = document.getElementById("none");
  const line = document.querySelector("[data-live]");

  function cell(name, text) {
    const td = document.createElement("td");
    if (name) td.dataset.name = name;
    td.textContent = text;
    return td;
  }

  function row(one) {
    const tr = document.createElement("tr");
    if (!one.owner) tr.className = "sum";
    tr.append(
      cell("", one.tenant || "no tenant"),
      cell("User", one.owner || "all"),
      cell("Running", one.running),
      cell("Pending", one.pending),
      cell("CPUs now", one.cpus),
      cell("CPU time", one.cpu),
      cell("Memory", one.memory),
      cell("Processes", one.processes),
    );
    return tr;
  }

  listen(line, {
    usage(rows) {
      body.replaceChildren(...rows.map(row));
      none.hidden = rows.length > 0;
    },
  });
})();
