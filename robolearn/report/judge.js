"use strict";
const verdicts = new Map();
const count = document.getElementById("count");
for (const pair of document.querySelectorAll(".pair")) {
  for (const button of pair.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      verdicts.set(pair.dataset.pair, button.dataset.verdict);
      for (const other of pair.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      count.textContent = verdicts.size + " given";
    });
  }
}
const save = document.getElementById("save");
if (save) {
  save.addEventListener("click", () => {
    const found = [...verdicts].map(([pair, verdict]) => ({ ...JSON.parse(pair), verdict }));
    const link = document.createElement("a");
    link.href = "data:application/json," + encodeURIComponent(JSON.stringify({ judgements: found }, null, 2));
    link.download = "judgements.json";
    link.click();
  });
}
