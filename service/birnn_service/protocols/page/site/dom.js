// Making elements. All text goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

// An element with attributes and children; strings become text, and null is left out.
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// The same within an SVG.
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Sets a text only where it changes, so that screen readers do not hear it again.
export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Copies a text, and says what came of it. Browsers allow that on https and on this machine only.
export async function copy(text, told) {
  try {
    await navigator.clipboard.writeText(text);
    tell(told, "Copied.");
  } catch {
    tell(told, "This browser does not let the page copy; select the text instead.");
  }
}
