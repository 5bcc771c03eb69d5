// The score chart: newest verdict at the right, the threshold as a dashed line, one shape an outcome.
const COLOURS = { accept: "--good-dot", review: "--odd-dot", reject: "--bad-dot" };

export function draw(canvas, points, threshold) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const shown = points.filter((p) => p.score !== null).slice(-Math.max(40, Math.floor(width / 5)));
  const scores = shown.map((p) => p.score);
  const most = Math.max(threshold * 1.3, ...scores), least = Math.min(0, threshold * 1.3, ...scores);
  const [left, right, top, bottom] = [40, width - 8, 8, height - 8];
  const y = (value) => bottom - ((value - least) / (most - least || 1)) * (bottom - top);
  const step = (right - left) / Math.max(40, Math.floor(width / 5));
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  pen.strokeStyle = colour("--edge");
  pen.fillStyle = colour("--quiet");
  for (const tick of ticks(least, most)) {
    line(pen, left, y(tick), right, y(tick));
    if (Math.abs(y(tick) - y(threshold)) > 12) pen.fillText(String(tick), left - 8, y(tick));
  }
  pen.strokeStyle = pen.fillStyle = colour("--text");
  pen.lineWidth = 2;
  pen.setLineDash([7, 5]);
  line(pen, left, y(threshold), right, y(threshold));
  pen.setLineDash([]);
  pen.font = "700 12px system-ui, sans-serif";
  pen.fillText(threshold.toFixed(1), left - 8, y(threshold));
  shown.forEach((point, place) => {
    pen.fillStyle = colour(COLOURS[point.outcome] || "--quiet");
    mark(pen, point.outcome, right - 5 - (shown.length - 1 - place) * step, y(point.score));
  });
}

function line(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

function mark(pen, outcome, x, y) {
  pen.beginPath();
  if (outcome === "reject") pen.rect(x - 4.5, y - 4.5, 9, 9);
  else if (outcome === "review") { pen.moveTo(x, y - 5.5); pen.lineTo(x + 5.5, y + 4.5); pen.lineTo(x - 5.5, y + 4.5); }
  else pen.arc(x, y, 3.2, 0, 7);
  pen.fill();
}

function ticks(least, most) {
  const rough = (most - least) / 4, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let value = Math.ceil(least / step) * step; value <= most; value += step) found.push(Number(value.toPrecision(6)));
  return found;
}
