/** Making elements. Text becomes text nodes and nothing else: whatever a message or a name contains, it is never read as markup. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | ((event: Event) => void)>} attributes `onclick` and the like take functions; false leaves an attribute out
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name.replace(/^on/, ''), value);
    else if (value !== false) element.setAttribute(name, value === true ? '' : String(value));
  }
  put(element, ...children);
  return element;
}

/** @param {Element} element @param {...Child} children */
export function put(element, ...children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** @param {Element} element @param {...Child} children */
export function fill(element, ...children) {
  element.replaceChildren();
  put(element, ...children);
}

/** What `say` has put into an element. @type {WeakMap<Element, string>} */
const said = new WeakMap();

/**
 * Changes a text only if it is another one, so that nothing is selected anew or read out again. What is not seen in it is made visible: names of
 * others stand in sentences of ours.
 * @param {Element} element @param {string} text
 */
export function say(element, text) {
  if (said.get(element) === text) return;
  said.set(element, text);
  element.replaceChildren();
  putForeign(element, text, false);
}

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no ${id}`);
  return found;
}

/**
 * Characters that are not seen, or that change how others are seen: controls, directions, zero width, private, unassigned, unpaired halves, and spaces
 * other than the usual one.
 */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** Text of others, with what is not seen in it made visible. @param {string} text @param {string} [className] @returns {HTMLElement} */
export function foreign(text, className = '') {
  const element = make('bdi', { class: `foreign ${className}`.trim(), dir: 'ltr' });
  putForeign(element, text, false);
  return element;
}

/** @param {Element} element @param {string} text @param {boolean} keepsLines line ends and tabs stay as they are */
export function putForeign(element, text, keepsLines) {
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (keepsLines && (match[0] === '\n' || match[0] === '\t')) continue;
    put(element, text.slice(from, match.index), escaped(match[0]));
    from = match.index + match[0].length;
  }
  put(element, text.slice(from));
}

/** @param {string} character */
function escaped(character) {
  const code = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');
  return make('span', { class: 'unseen', title: `U+${code}` }, `U+${code}`);
}

/** A link to a page of the console. @param {string} page @param {Record<string, string | number>} parameters */
export function hashOf(page, parameters = {}) {
  const query = Object.entries(parameters)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&');
  return query === '' ? `#/${page}` : `#/${page}?${query}`;
}

/** A subject as parameters of a page. @param {string} subject @param {string} tenant in whose space it is; '': in none @returns {{ subject: string, tenant?: string }} */
export function namedBy(subject, tenant) {
  return tenant === '' ? { subject } : { tenant, subject };
}

/** The same in a line. @param {{ subject: string, tenant?: string }} named */
export function shownBy({ subject, tenant }) {
  return tenant === undefined ? subject : `${subject} (${tenant})`;
}
