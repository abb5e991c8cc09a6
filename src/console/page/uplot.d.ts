/** The library is served beside the page under this name. */
export { default } from 'uplot';
