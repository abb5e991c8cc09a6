/** What a node, a cluster and a client may be called: in the configuration, in certificates and as members. */

/** As a part of other patterns: without groups and ends. */
export const NAME_PATTERN = '[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?';
export const NAME = new RegExp(`^${NAME_PATTERN}$`);
/** The same in words. */
export const NAME_RULE = '1 to 63 letters, digits, ".", "_" or "-", with a letter or digit at both ends';
