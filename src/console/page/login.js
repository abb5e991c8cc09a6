/** Asking for a token, where the node wants one. */
import { post, Refused } from './api.js';
import { fill, foreign, make } from './dom.js';

/** @param {() => void} onDone @returns {HTMLElement} */
export function loginForm(onDone) {
  const problem = make('div', { class: 'problem', role: 'alert', hidden: true });
  const field = make('input', {
    id: 'token',
    type: 'password',
    autocomplete: 'off',
    required: true,
    spellcheck: 'false',
  });
  const button = make('button', { type: 'submit' }, 'Log in');
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    problem.hidden = true;
    button.disabled = true;
    const token = field.value.trim();
    // It is nowhere in the page any more, whatever comes of it.
    field.value = '';
    post('login', { token }).then(onDone, (error) => {
      button.disabled = false;
      problem.hidden = false;
      const next = error instanceof Refused && error.next !== '' ? `; ${error.next}` : '';
      fill(problem, foreign(error instanceof Refused ? `${error.message}${next}.` : 'No answer; try again.'));
      field.focus();
    });
  };
  return make(
    'form',
    { class: 'login', onsubmit },
    make('p', {}, 'This node shows itself to those who log in: with a token of its access file that may observe.'),
    make('label', { for: 'token' }, 'Token'),
    field,
    button,
    problem,
  );
}
