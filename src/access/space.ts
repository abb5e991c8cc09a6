/** What makes the space of a caller; base/subject-space.ts says what a space is. */
export { spaceOf } from '../base/subject-space.ts';
