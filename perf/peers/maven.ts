/** Jars of Maven artifacts, in a folder of the cache. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inCache, must } from './peer.ts';

export interface Artifact {
  readonly group: string;
  readonly name: string;
  readonly version: string;
  /** group:name of dependencies that are left out. */
  readonly without?: readonly string[];
}

const PLUGIN = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';

export function fetchJars(folder: string, artifacts: readonly Artifact[]): void {
  const home = inCache(folder);
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, 'pom.xml'), pom(folder, artifacts));
  must('mvn', [
    '-B',
    '-q',
    '-f',
    join(home, 'pom.xml'),
    PLUGIN,
    `-DoutputDirectory=${join(home, 'lib')}`,
    '-DincludeScope=runtime',
  ]);
}

export function hasJar(folder: string, name: string): boolean {
  const lib = inCache(folder, 'lib');
  return existsSync(lib) && readdirSync(lib).some((file) => file.startsWith(name));
}

/** For `java -cp`. */
export function classPath(folder: string): string {
  return inCache(folder, 'lib', '*');
}

function pom(name: string, artifacts: readonly Artifact[]): string {
  const dependencies = artifacts.map(({ group, name: artifact, version, without = [] }) => {
    const exclusions = without.map((one) => {
      const [groupId, artifactId] = one.split(':');
      return `<exclusion><groupId>${groupId}</groupId><artifactId>${artifactId}</artifactId></exclusion>`;
    });
    const except = exclusions.length === 0 ? '' : `<exclusions>${exclusions.join('')}</exclusions>`;
    return `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${version}</version>${except}</dependency>`;
  });
  return [
    '<project><modelVersion>4.0.0</modelVersion>',
    `<groupId>local.perf</groupId><artifactId>${name}</artifactId><version>1</version><packaging>pom</packaging>`,
    `<dependencies>${dependencies.join('\n')}</dependencies></project>`,
    '',
  ].join('\n');
}
