/** The keys of the web console on the admin port. A part of `SCHEMA`. */
import { boolean, optionalText } from './field.ts';

/** Names of hosts, without ports, with commas between. */
const HOST_NAMES = /^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?(, *[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?){0,15}$/;

export const CONSOLE = {
  enabled: boolean({
    default: true,
    doc: 'Serve the web console on `admin.listen`. It shows what `broker status`, `broker top` and `broker fetch` show, messages included, to whoever can reach that port; with `access.file` to those who log in with a token that has `observe`, and messages to those who may fetch them.',
  }),
  write: boolean({
    default: false,
    doc: 'Let the console change the number of shards. With `access.file` those who log in with a token that has `admin`; without it only with `admin.listen` on loopback.',
  }),
  hosts: optionalText({
    pattern: HOST_NAMES,
    isList: true,
    rule: 'names of hosts without ports, up to 16 with commas between',
    unset: 'none',
    doc: 'Names by which browsers may call the console, beside addresses, localhost and the names in `listen` and `advertise` settings: such as that of a proxy in front of it. Any other name is refused (421), so that a page from elsewhere cannot read the console by way of a name of its own (DNS rebinding).',
  }),
};
