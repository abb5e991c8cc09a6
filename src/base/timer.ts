/** The longest time that a timer of Node takes, in ms; one of more is over at once. */
export const TIMER_MS_MAX = 2 ** 31 - 1;
