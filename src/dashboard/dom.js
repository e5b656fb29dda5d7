// SPDX-License-Identifier: Apache-2.0
// Elements. Text only ever becomes text: nothing here makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false)
      continue;
    if (typeof value === "function")
      node.addEventListener(name, value);
    else
      node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const by = (id) => document.getElementById(id);

/** Sets the text only where it is another one, so that what is read aloud or selected stays. */
export function say(node, text) {
  const now = String(text);
  if (node.textContent !== now)
    node.textContent = now;
  return node;
}

export function set(node, name, value) {
  if (value === null || value === undefined || value === false)
    node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value))
    node.setAttribute(name, value === true ? "" : String(value));
  return node;
}

/** Brings the children of `parent` in line with `items`: those that stay are updated, and keep the focus. */
export function keyed(parent, items, key, make, update) {
  const old = parent.kept || new Map();
  const now = new Map();
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    if (now.has(name))
      continue;
    const part = old.get(name) || make(item);
    now.set(name, part);
    update(part, item);
    if (part.node === at)
      at = at.nextElementSibling;
    else
      parent.insertBefore(part.node, at);
  }
  for (const [name, part] of old)
    if (!now.has(name))
      part.node.remove();
  parent.kept = now;
}
