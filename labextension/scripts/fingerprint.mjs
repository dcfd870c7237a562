// Write the digest of the sources beside the built extension; a test compares it with the present sources.
//
// The digest is SHA-256 over, for each source file in the order of its path (POSIX, relative to labextension/):
// the path, a zero byte, the SHA-256 of the file in hexadecimal, a line feed.  tests/unit/test_labextension_fresh.py
// computes the same.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

const HERE = fileURLToPath(new URL('..', import.meta.url));
const OUTPUT = join(HERE, '..', 'pydock_jupyter', 'labextension', 'source.sha256');

const directories = ['src', 'style'].flatMap(directory =>
  readdirSync(join(HERE, directory), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name).slice(HERE.length))
);
const digest = createHash('sha256');
for (const path of [...directories, 'package.json', 'tsconfig.json', 'webpack.config.js', 'yarn.lock'].sort()) {
  const content = createHash('sha256').update(readFileSync(join(HERE, path))).digest('hex');
  digest.update(`${path}\0${content}\n`);
}
writeFileSync(OUTPUT, digest.digest('hex') + '\n');
