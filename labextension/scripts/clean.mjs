// Remove the results of earlier builds.

import { rmSync } from 'node:fs';

for (const name of ['../lib', '../tsconfig.tsbuildinfo', '../../pydock_jupyter/labextension']) {
  rmSync(new URL(name, import.meta.url), { recursive: true, force: true });
}
