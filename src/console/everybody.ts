/** The space of whoever uses the console: none, so that it shows the subjects of all tenants. */
export const EVERYBODY = new Uint8Array(0);
