/** The keys of who may do what. A part of `SCHEMA`. */
import { optionalText } from './field.ts';

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
    doc: 'File to whose end the audit lines are written too, as JSON: who was refused what, and what operators have changed. Only this user can read it. It grows without bound: let logrotate move it away and send SIGHUP, which opens it again.',
  }),
};
