// Numbers as people read them.

// Seconds with a unit that fits.
export function seconds(value) {
  if (value === null || value === undefined) return "none";
  if (value === 0) return "0 s";
  if (value < 1e-3) return `${digits(value * 1e6)} µs`;
  return value < 1 ? `${digits(value * 1e3)} ms` : `${digits(value)} s`;
}

// A count, or a number of things a second.
export function count(value) {
  if (value === null || value === undefined) return "none";
  return value >= 10_000 ? `${digits(value / 1000)}k` : digits(value);
}

// Three digits, or all of those before the point.
export function digits(value) {
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

// A round number at or above a value: a few times a power of ten.
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((round) => round >= value * (1 - 1e-9));
}
