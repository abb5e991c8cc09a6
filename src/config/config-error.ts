/** One line per problem; each names key, value and rule, and the nearest valid key where one is near. The process exits with code 2. */
export class ConfigError extends Error {
  override name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}
