/** The keys of who may do what. A part of `SCHEMA`. */
import { bytes, optionalText } from './field.ts';

const FILE_PATTERN = /^[^\0]+$/;

export const ACCESS = {
  file: optionalText({
    pattern: FILE_PATTERN,
    rule: 'the path of a file',
    isFile: true,
    unset: 'everybody may do everything',
    doc: 'Who may do what: a YAML file with roles, bearer tokens (their hashes), issuers of JWTs and names of client certificates. What it does not allow is refused. It is looked at five times a second and at SIGHUP: what was taken out of it ends its streams; a file with a problem changes nothing. Write a new one beside it and rename it (`mv`), since one that is written in place may be taken half-written. `broker access check FILE` checks it, docs/security.md explains it.',
  }),
  audit_file: optionalText({
    pattern: FILE_PATTERN,
    rule: 'the path of a file',
    unset: 'the log alone',
    doc: 'File to whose end the audit lines are written too, as JSON: who was refused what, and what operators have changed. Only this user can read it. SIGHUP opens it again, for tools that move it away. What it lacks because it could not be written is counted (`broker_access_audit_lines_missing_total`) and in the log.',
  }),
  audit_max_bytes: bytes({
    min: '64KiB',
    max: '1TiB',
    zero: 'off',
    default: '64MiB',
    doc: 'Largest size of `access.audit_file`. Before it would be larger it is renamed, with `.1` behind its name, in place of the one that had that name before, and begun anew: so there are two files of this size at most. Turn it up to keep more on this machine; off where another tool moves the file away.',
  }),
};
