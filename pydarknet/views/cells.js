"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const chars = Array.from(D.text), N = chars.length, M = D.cells.length;
const decoded = {};
const view = (name) => (decoded[name] ??= bytes(D.views[name]));
const nextSymbols = bytes(D.next_symbols), nextChances = bytes(D.next_chances);
const HIGH = 28, NEXT = 102, AROUND = 6;
let cell = Math.max(0, D.cells.indexOf(D.first)), shown = "value", under = false, chosen = 0, rows = [], columns = 0;

const safe = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
const glyph = (c) => (c === "\n" ? "↵" : c === "\t" ? "→" : D.escapes[c] ?? c);
const symbol = (b) => (b === 10 ? "↵" : b === 32 ? "␣" : b === 9 ? "→" : b > 32 && b < 127 ? String.fromCharCode(b) : "·");
const named = (b) => (b > 32 && b < 127 ? symbol(b) : b === 32 ? "blank" : b === 10 ? "line end" : "\\x" + b.toString(16).padStart(2, "0"));
const wide = (c) => /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u.test(c);
const columnsOf = (c) => D.escapes[c]?.length ?? (wide(c) ? 2 : 1);
const at = (name, m, n) => view(name)[m * N + n];
const value = (m, n) => ((at("value", m, n) - 127) / 127) * D.scale;
function shade(name, byte) {
  if (name === "value") {
    const step = Math.round(((byte - 127) / 127) * 16);
    return step > 0 ? "p" + step : step < 0 ? "n" + -step : "";
  }
  const step = Math.round((byte / 255) * 16);
  return step ? "q" + step : "";
}

function layOut() {
  const probe = document.createElement("span");
  probe.textContent = "0".repeat(100);
  $("all").append(probe);
  const width = (probe.getBoundingClientRect().width / 100) * (under ? 1.35 : 1);
  probe.remove();
  columns = Math.max(10, Math.floor(($("text").clientWidth - 42) / width));
  rows = [];
  for (let n = 0, used = 0, start = 0; n < N; n++) {
    used += columnsOf(chars[n]);
    const full = n + 1 < N && used + columnsOf(chars[n + 1]) > columns;
    if (chars[n] === "\n" || full || n + 1 === N) { rows.push([start, n + 1]); start = n + 1; used = 0; }
  }
  $("all").style.height = rows.length * high() + 40 + "px";
  $("all").className = under ? "next" : "";
}
const high = () => (under ? NEXT : HIGH);
const rowOf = (n) => { let a = 0, b = rows.length - 1; while (a < b) { const m = (a + b + 1) >> 1; if (rows[m][0] <= n) a = m; else b = m - 1; } return a; };

function drawRow(r) {
  const [start, end] = rows[r], parts = [];
  for (let n = start; n < end; n++) {
    const c = chars[n];
    let html = `<b class="${shade(shown, at(shown, cell, n))}">${safe(glyph(c))}</b>`;
    if (under) for (let k = 0; k < 5; k++) html += `<s class="${shade("q", nextChances[5 * n + k])}">${safe(symbol(nextSymbols[5 * n + k]))}</s>`;
    parts.push(`<span class="c${n === chosen ? " on" : ""}${c === "\n" || c === "\t" ? " e" : ""}" style="--w:${columnsOf(c)}" data-n="${n}">${html}</span>`);
  }
  return `<div class="row" style="top:${r * high()}px">${parts.join("")}</div>`;
}
function draw() {
  const top = $("text").scrollTop, first = Math.max(0, Math.floor(top / high()) - AROUND);
  const last = Math.min(rows.length, Math.ceil((top + $("text").clientHeight) / high()) + AROUND);
  let html = "";
  for (let r = first; r < last; r++) html += drawRow(r);
  $("all").innerHTML = html;
}
function drawBar() {
  $("cell").textContent = `cell ${D.cells[cell]}` + (M < D.total ? ` (${cell + 1} of ${M})` : ` of ${D.total}`);
  for (const b of document.querySelectorAll("[data-view]")) b.setAttribute("aria-pressed", b.dataset.view === shown);
  $("under").setAttribute("aria-pressed", under);
  $("legend").innerHTML = shown === "value"
    ? `${-D.scale.toFixed(2)}<span class="scale d"></span>${+D.scale.toFixed(2)}` : `0<span class="scale q"></span>1`;
  let html = "";
  for (let m = 0; m < M; m++) html += `<i data-m="${m}" class="${shade(shown, at(shown, m, chosen))}${m === cell ? " on" : ""}" title="cell ${D.cells[m]}"></i>`;
  $("strip").innerHTML = html;
  $("gates").innerHTML = Object.entries(D.shares).map(([g, [low, up]]) =>
    `<tr><td>${g}<td class="r">${(100 * low[cell]).toFixed(0)} %<td class="r">${(100 * up[cell]).toFixed(0)} %`).join("");
  let next = "";
  for (let k = 0; k < 5; k++) next += `<tr><td>${safe(named(nextSymbols[5 * chosen + k]))}<td class="r">${((100 * nextChances[5 * chosen + k]) / 255).toFixed(0)} %`;
  $("likely").innerHTML = next;
  const letters = Object.keys(D.shares).map((g) => `${g} ${(at(g, cell, chosen) / 255).toFixed(2)}`).join("  ");
  $("here").textContent = `character ${chosen + 1}: ${D.value} ${value(cell, chosen).toFixed(2)}  ${letters}`;
}
const redraw = () => { draw(); drawBar(); };
function relay() { const n = rows.length ? rows[Math.min(rows.length - 1, Math.floor($("text").scrollTop / high()))][0] : 0; return () => { layOut(); $("text").scrollTop = rowOf(n) * high(); redraw(); }; }
function choose(m) { cell = ((m % M) + M) % M; redraw(); }
function look(name) { shown = name; redraw(); }
function toggle() { const again = relay(); under = !under; again(); }
function move(n) {
  chosen = Math.min(N - 1, Math.max(0, n));
  const y = rowOf(chosen) * high(), box = $("text");
  if (y < box.scrollTop) box.scrollTop = y;
  if (y + high() > box.scrollTop + box.clientHeight) box.scrollTop = y + high() - box.clientHeight + 20;
  redraw();
}

$("views").innerHTML = ["value", ...Object.keys(D.shares)].map((g, k) => `<button data-view="${g}">${g === "value" ? safe(D.value) : "gate " + g} <kbd>${k + 1}</kbd></button>`).join(" ");
$("found").innerHTML = D.found.map(([name, best]) => `<tr><td>${safe(name)}<td class="r">` + (best.length
  ? best.map(([c, r]) => `<button data-c="${c}" title="r = ${r.toFixed(2)}">${c}</button> ${r.toFixed(2)}`).slice(0, 1).join("") : `<span class="dim">not in this text</span>`)).join("");
document.addEventListener("click", (event) => {
  const part = event.target.closest("[data-m],[data-c],[data-view],[data-n],#under");
  if (!part) return;
  if (part.id === "under") toggle();
  else if (part.dataset.m) choose(+part.dataset.m);
  else if (part.dataset.c) choose(D.cells.indexOf(+part.dataset.c));
  else if (part.dataset.view) look(part.dataset.view);
  else { chosen = +part.dataset.n; redraw(); }
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const views = ["value", ...Object.keys(D.shares)], key = event.key;
  if (key === "ArrowRight") choose(cell + 1);
  else if (key === "ArrowLeft") choose(cell - 1);
  else if (key === "n") toggle();
  else if (key === "," || key === ".") move(chosen + (key === "." ? 1 : -1));
  else if (key >= "1" && key <= String(views.length)) look(views[key - 1]);
  else return;
  event.preventDefault();
});
$("text").addEventListener("scroll", () => requestAnimationFrame(draw));
let width = 0;
new ResizeObserver(() => { if ($("text").clientWidth !== width) { width = $("text").clientWidth; relay()(); } else draw(); }).observe($("text"));
if (/^#\d+$/.test(location.hash)) cell = Math.max(0, D.cells.indexOf(+location.hash.slice(1)));
layOut();
redraw();
$("text").focus();
