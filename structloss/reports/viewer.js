"use strict";
// Orthographic viewer of a few poses: drag or arrow keys rotate, the wheel zooms after a click. Data: see _viewer() in page.py.
(function () {
  const data = JSON.parse(document.getElementById("pose-data").textContent);
  const canvas = document.getElementById("pose-canvas");
  const slider = document.getElementById("pose-frame");
  const label = document.getElementById("pose-label");
  const play = document.getElementById("pose-play");
  const boxes = Array.from(document.querySelectorAll("input[data-pose]"));
  const views = { front: [0, 0], side: [-Math.PI / 2, 0], top: [0, Math.PI / 2], oblique: [-0.6, 0.25] };
  let [yaw, pitch] = views.oblique;
  let zoom = 1, timer = 0;

  // Middle and size of all true poses, so that nothing jumps from frame to frame.
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  for (const frame of data.poses[0].frames) for (const p of frame) p.forEach((v, k) => {
    if (v !== null) { low[k] = Math.min(low[k], v); high[k] = Math.max(high[k], v); }
  });
  const middle = low.map((v, k) => (v + high[k]) / 2);
  const size = Math.hypot(...low.map((v, k) => high[k] - v)) || 1;

  // Camera frame (x right, y down, z forward) to the screen; null where a coordinate is missing.
  function project(p, w, h) {
    if (p.includes(null)) return null;
    const [x, y, z] = p.map((v, k) => v - middle[k]);
    const across = x * Math.cos(yaw) - z * Math.sin(yaw);
    const depth = x * Math.sin(yaw) + z * Math.cos(yaw);
    const down = y * Math.cos(pitch) - depth * Math.sin(pitch);
    const scale = zoom * Math.min(w, h) / size * 0.86;
    return [w / 2 + across * scale, h / 2 + down * scale];
  }

  function line(ctx, a, b) {
    if (!a || !b) return;
    ctx.beginPath(); ctx.moveTo(a[0], a[1]); ctx.lineTo(b[0], b[1]); ctx.stroke();
  }

  function floor(ctx, w, h, colour) {
    const y = high[1], reach = 750, x0 = middle[0], z0 = middle[2];
    ctx.strokeStyle = colour; ctx.lineWidth = 1; ctx.setLineDash([]); ctx.globalAlpha = 0.3;
    for (let t = -reach; t <= reach; t += 250) {
      line(ctx, project([x0 + t, y, z0 - reach], w, h), project([x0 + t, y, z0 + reach], w, h));
      line(ctx, project([x0 - reach, y, z0 + t], w, h), project([x0 + reach, y, z0 + t], w, h));
    }
    ctx.globalAlpha = 0.9; ctx.fillStyle = colour; ctx.textAlign = "center";
    const near = project([x0, y, z0 - reach - 110], w, h), far = project([x0, y, z0 + reach + 110], w, h);
    if (Math.hypot(near[0] - far[0], near[1] - far[1]) > 60) {
      ctx.fillText("camera side", near[0], near[1]); ctx.fillText("far", far[0], far[1]);
    }
    ctx.globalAlpha = 1;
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
    }
    const ctx = canvas.getContext("2d"), style = getComputedStyle(canvas), f = Number(slider.value);
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, w, h);
    ctx.font = "12px system-ui, sans-serif";
    floor(ctx, w, h, style.color);
    data.poses.forEach((pose, k) => {
      if (!boxes[k].checked) return;
      const points = pose.frames[f].map((p) => project(p, w, h));
      const colour = style.getPropertyValue(pose.colour).trim() || style.color;
      ctx.strokeStyle = ctx.fillStyle = colour;
      ctx.lineCap = "butt";
      ctx.globalAlpha = k ? 1 : 0.6;
      data.bones.forEach(([child, parent, side]) => {
        ctx.lineWidth = (k ? 3 : 7) * (side ? 1 : 0.7);
        ctx.setLineDash(side === "L" ? [7, 4] : []);
        line(ctx, points[parent], points[child]);
      });
      ctx.setLineDash([]);
      if (k) points.forEach((p) => {
        if (p) { ctx.beginPath(); ctx.arc(p[0], p[1], data.dot, 0, 2 * Math.PI); ctx.fill(); }
      });
      ctx.globalAlpha = 1;
    });
    const errors = data.poses.slice(1).map((p) => p.name + " " + (p.errors[f] === null ? "–" : p.errors[f].toFixed(1) + " mm"));
    label.textContent = data.labels[f] + ": mean joint error " + errors.join(", ");
  }

  function turn(dx, dy) {
    yaw += dx * 0.01;
    pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, pitch + dy * 0.01));
    draw();
  }

  canvas.addEventListener("pointerdown", (e) => canvas.setPointerCapture(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    if (canvas.hasPointerCapture(e.pointerId)) turn(e.movementX, e.movementY);
  });
  canvas.addEventListener("wheel", (e) => {
    if (document.activeElement !== canvas) return;  // until it is clicked, the wheel scrolls the page
    e.preventDefault(); zoom = Math.max(0.3, Math.min(6, zoom * Math.exp(-e.deltaY * 0.001))); draw();
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[e.key];
    if (step) { e.preventDefault(); turn(...step); }
  });
  document.querySelectorAll("button[data-view]").forEach((button) => button.addEventListener("click", () => {
    [yaw, pitch] = views[button.dataset.view]; zoom = 1; draw();
  }));
  slider.addEventListener("input", draw);
  boxes.forEach((box) => box.addEventListener("change", draw));
  play.addEventListener("click", () => {
    if (timer) { clearInterval(timer); timer = 0; } else timer = setInterval(() => {
      slider.value = (Number(slider.value) + 1) % data.labels.length; draw();
    }, data.labels.length > 12 ? 40 : 700);
    play.textContent = timer ? "Stop" : "Play";
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(canvas);
  draw();
})();
