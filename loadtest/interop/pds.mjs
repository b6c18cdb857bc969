// A real PDS, configured as every operator configures it: by PDS_* variables.
import { PDS } from '@atproto/pds';

await PDS.run({ onStarted: () => console.log('ready') });
