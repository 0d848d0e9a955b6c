// -------------------------------------------------------------------------------------- measuring

// Two points that were clicked, and how far they are apart.
const measuring = { on: false, ends: [], pressed: null };
const REACH = 8; // pixels from the click

function setMeasuring(on) {
  measuring.on = on;
  measuring.ends = [];
  $("measure").textContent = on ? "stop measuring" : "measure";
  canvas.style.cursor = on ? "crosshair" : "";
  showMeasured();
}

// The point that is drawn nearest to a place on the canvas, those in front first.
function pick(x, y) {
  const from = viewpoint(), { matrix: m } = projection(from);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const least = leastLevel(), share = +$("share").value;
  let best = null, lowest = Infinity;
  for (const node of state.points.values()) {
    if (!visible(node)) continue;
    const seen = $("through").checked && poseAt(node.frame);
    const [sx, sy, sz] = node.size.map((size) => size / 65535);
    for (let i = 0, n = Math.ceil(node.count * share); i < n; i++) {
      if (node.levels[i] < least) continue;
      const px = node.low[0] + sx * node.places[3 * i], py = node.low[1] + sy * node.places[3 * i + 1];
      const pz = node.low[2] + sz * node.places[3 * i + 2];
      const w = m[3] * px + m[7] * py + m[11] * pz + m[15];
      if (w <= 0) continue;
      const dx = ((m[0] * px + m[4] * py + m[8] * pz + m[12]) / w + 1) / 2 * width - x;
      const dy = (1 - (m[1] * px + m[5] * py + m[9] * pz + m[13]) / w) / 2 * height - y;
      const away = Math.hypot(dx, dy);
      const cost = w * (1 + away / 100);
      if (away > REACH || cost >= lowest) continue;
      const place = [px, py, pz];
      if (seen && dot(unit(plus(place, placeOf(seen), -1)), unit(plus(place, from.at, -1))) < -0.1) continue;
      [best, lowest] = [place, cost];
    }
  }
  return best;
}

const measured = () => measuring.ends.length === 2
  ? Math.hypot(...plus(measuring.ends[0], measuring.ends[1], -1)) : null;

function showMeasured() {
  const length = measured(), known = +$("true-length").value;
  $("measured").hidden = !measuring.on;
  $("known-length").hidden = !facts.live || length === null;
  $("measured").textContent = length !== null
    ? `${length.toPrecision(4)} ${facts.unit}` : ["click the first point", "click the second point"][measuring.ends.length];
  $("scale-command").hidden = !facts.live || !(length > 0 && known > 0);
  $("save-scale").hidden = $("scale-command").hidden || !facts.savable || facts.aligned;
  $("scale-said").textContent = "";
  if (length > 0) $("scale-command").textContent = facts.aligned
    ? "The run is aligned to known positions, which say its lengths."
    : `ttt3r scale RUN ${(facts.scale * known / length).toPrecision(6)}`;
  refresh();
}

// Saves the scale with the run; the program then sends the scaled run, and the page loads anew.
async function saveScale() {
  const [length, metres] = [measured() / facts.scale, +$("true-length").value];
  $("save-scale").disabled = true;
  try {
    const answer = await fetch(`scale?${query().slice(1)}`, {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ metres, length }),
    });
    $("scale-said").textContent = await answer.text();
  } catch (error) {
    $("scale-said").textContent = "the viewer's program does not answer; it may have ended";
  }
  $("save-scale").disabled = false;
}

function drawMeasured(matrix) {
  const mark = 0.012 * state.reach, lines = [];
  const add = (a, b) => lines.push(...a, 0, 0, 0, 0, ...b, 0, 0, 0, 0);
  for (const end of measuring.ends)
    for (const axis of [[mark, 0, 0], [0, mark, 0], [0, 0, mark]]) add(plus(end, axis, -1), plus(end, axis));
  if (measuring.ends.length === 2) add(...measuring.ends);
  gl.disable(gl.DEPTH_TEST);
  drawLines(gl.LINES, new Float32Array(lines), matrix, [1, 0.85, 0.1, 1], THICK);
  gl.enable(gl.DEPTH_TEST);
}

function measureControls() {
  $("measure").addEventListener("click", () => setMeasuring(!measuring.on));
  $("true-length").addEventListener("input", showMeasured);
  $("save-scale").addEventListener("click", saveScale);
  canvas.addEventListener("pointerdown", (event) => {
    measuring.pressed = event.button === 0 && [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointerup", (event) => {
    const from = measuring.pressed;
    if (!measuring.on || !from || Math.hypot(event.clientX - from[0], event.clientY - from[1]) > 4) return;
    const box = canvas.getBoundingClientRect();
    const found = pick(event.clientX - box.left, event.clientY - box.top);
    if (!found) return;
    if (measuring.ends.length === 2) measuring.ends = [];
    measuring.ends.push(found);
    showMeasured();
  });
}

