// Drawing on a small square picture with whole numbers only: the same bytes as robustlab/demo/raster.py.
// A picture is a Uint8ClampedArray of size * size RGB pixels, row by row. What lies beyond the picture is cut off.

export const BLANK = [204, 204, 204];

export function blank(size, color = BLANK) {
  const picture = new Uint8ClampedArray(3 * size * size);
  for (let at = 0; at < picture.length; at++) picture[at] = color[at % 3];
  return picture;
}

function set(picture, size, x, y, color) {
  if (x < 0 || y < 0 || x >= size || y >= size) return;
  picture.set(color, 3 * (y * size + x));
}

export function brush(picture, size, points, color, width) {
  const half = Math.floor((width - 1) / 2);
  const disc = (cx, cy) => {
    for (let j = 0; j < width; j++)
      for (let i = 0; i < width; i++)
        if ((2 * i + 1 - width) ** 2 + (2 * j + 1 - width) ** 2 < width * width)
          set(picture, size, cx - half + i, cy - half + j, color);
  };
  if (points.length === 1) disc(...points[0]);
  for (let k = 0; k + 1 < points.length; k++) for (const [x, y] of line(points[k], points[k + 1])) disc(x, y);
}

export function line([x, y], [x1, y1]) {
  const dots = [];
  const dx = Math.abs(x1 - x), dy = -Math.abs(y1 - y);
  const sx = x < x1 ? 1 : -1, sy = y < y1 ? 1 : -1;
  let error = dx + dy;
  for (;;) {
    dots.push([x, y]);
    if (x === x1 && y === y1) return dots;
    const twice = 2 * error;
    if (twice >= dy) { error += dy; x += sx; }
    if (twice <= dx) { error += dx; y += sy; }
  }
}

function* box(size, start, end) {
  const [left, right] = [Math.max(Math.min(start[0], end[0]), 0), Math.min(Math.max(start[0], end[0]), size - 1)];
  const [top, bottom] = [Math.max(Math.min(start[1], end[1]), 0), Math.min(Math.max(start[1], end[1]), size - 1)];
  for (let y = top; y <= bottom; y++) for (let x = left; x <= right; x++) yield [x, y];
}

export function rectangle(picture, size, start, end, color) {
  for (const [x, y] of box(size, start, end)) set(picture, size, x, y, color);
}

export function circle(picture, size, start, end, color) {
  const x0 = Math.min(start[0], end[0]), y0 = Math.min(start[1], end[1]);
  const width = Math.abs(end[0] - start[0]) + 1, height = Math.abs(end[1] - start[1]) + 1;
  const room = width * width * height * height + Math.max(width, height) ** 2; // so that thin ones reach their ends too
  for (const [x, y] of box(size, start, end)) {
    const across = (2 * (x - x0) + 1 - width) * height, down = (2 * (y - y0) + 1 - height) * width;
    if (across * across + down * down <= room) set(picture, size, x, y, color);
  }
}

export function apply(picture, size, action) {
  if (action.do === "fill") picture.set(blank(size, action.color));
  else if (action.do === "brush") brush(picture, size, action.points, action.color, action.width);
  else if (action.do === "rectangle") rectangle(picture, size, action.from, action.to, action.color);
  else if (action.do === "circle") circle(picture, size, action.from, action.to, action.color);
  else throw new Error(`${action.do} is no drawing`);
}

// L2 distance of two pictures in units of [0, 1] pixels.
export function distance(a, b) {
  let sum = 0;
  for (let at = 0; at < a.length; at++) sum += (a[at] - b[at]) ** 2;
  return Math.sqrt(sum) / 255;
}

// The picture with each pixel repeated so many times in both directions.
export function enlarged(picture, size, times) {
  const large = new Uint8ClampedArray(3 * (size * times) ** 2), wide = 3 * size * times;
  for (let y = 0; y < size; y++) {
    const first = y * times * wide;
    for (let x = 0; x < size * times; x++) {
      const from = 3 * (y * size + Math.floor(x / times));
      large.set(picture.subarray(from, from + 3), first + 3 * x);
    }
    for (let k = 1; k < times; k++) large.copyWithin(first + k * wide, first, first + wide);
  }
  return large;
}

export const toBase64 = (bytes) => {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
};

export const fromBase64 = (text) => Uint8ClampedArray.from(atob(text), (letter) => letter.charCodeAt(0));

// An 8-bit PNG of the picture. Written by hand, since browsers that fight fingerprinting change what is read back from a canvas.
export async function png(picture, size) {
  const rows = new Uint8Array(size * (3 * size + 1)); // each row begins with its filter, 0
  for (let y = 0; y < size; y++) rows.set(picture.subarray(3 * size * y, 3 * size * (y + 1)), y * (3 * size + 1) + 1);
  const packed = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, size);
  header.setUint32(4, size);
  header.setUint16(8, 0x0802); // 8 bits, RGB
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const parts = [chunk("IHDR", new Uint8Array(header.buffer)), chunk("IDAT", new Uint8Array(await packed.arrayBuffer()))];
  return new Blob([signature, ...parts, chunk("IEND", new Uint8Array())], { type: "image/png" });
}

function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.length), view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  for (let k = 0; k < 4; k++) bytes[4 + k] = name.charCodeAt(k);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}
