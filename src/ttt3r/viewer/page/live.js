// ------------------------------------------------------------------------------------------- live

const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const query = () => {
  const token = new URLSearchParams(location.search).get("token");
  return token ? `&token=${encodeURIComponent(token)}` : "";
};

async function listen() {
  for (;;) {
    if (state.paused) { await wait(200); continue; }
    try {
      const answer = await fetch(`changes?after=${state.version}${query()}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(`${answer.status}`);
      take(new Uint8Array(await answer.arrayBuffer()));
      $("message").textContent = state.poses.length ? "" : "waiting for the first frame";
    } catch (error) {
      $("message").textContent = "the viewer's program does not answer; it may have ended";
      await wait(1000);
    }
  }
}

// Image, depth, confidence and gate of the frame that is looked at.
async function details() {
  let shown = -1;
  for (;;) {
    await wait($("latest").checked ? 1000 : 250);  // each answer costs the run a little
    const frame = state.frame;
    if (state.paused || frame === shown || !state.frames) continue;
    try {
      const answer = await fetch(`frame?index=${frame}${query()}`, { cache: "no-store" });
      if (!answer.ok) continue;
      const detail = await answer.json();
      shown = frame;
      state.detail = detail;
      for (const name of ["image", "depth", "confidence", "gate"])
        if (detail[name]) $(name).src = detail[name];
        else $(name).removeAttribute("src");
      $("caption").textContent = `input, frame ${detail.index}`;
      $("depth-caption").textContent = `depth ${detail.depth_range || ""}`;
      $("confidence-caption").textContent = `confidence ${detail.confidence_range || ""}`;
      $("gate-caption").textContent = detail.gate ? `gate β, ${detail.gate_range}` : "gate: none";
    } catch (error) { await wait(1000); }
  }
}

// ------------------------------------------------------------------------------------------ begin

async function begin() {
  if (!gl) { $("message").textContent = "This browser has no WebGL 2, which the view needs."; return; }
  state.reach = 2; state.middle = [0, 0, 2];
  prepare();
  controls();
  showFacts();
  if (facts.live) {
    $("maps").hidden = $("pause").hidden = $("newest").hidden = false;
    listen();
    details();
  } else {
    const packed = Uint8Array.from(atob($("scene").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    take(new Uint8Array(await new Response(stream).arrayBuffer()));
    state.frame = state.frames - 1;
    $("scene").textContent = "";
    arranged();
  }
  state.ready = true;
  loop();
}
begin();
