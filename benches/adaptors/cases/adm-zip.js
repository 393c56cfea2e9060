// package: npm:adm-zip@0.6
// behind: msgraph
// does: writes an archive and reads it back, a damaged one
import AdmZip from 'adm-zip';

export default [
  async () => {
    const zip = new AdmZip();
    zip.addFile('data/patients.csv', Buffer.from('name\nAmina 🌍\n'), 'a comment');
    zip.addFile('big', Buffer.alloc(300_000, 'x'));
    const read = new AdmZip(zip.toBuffer());
    same(read.getEntries().map(entry => entry.entryName).sort(), ['big', 'data/patients.csv']);
    same([read.readAsText('data/patients.csv'), read.readFile('big').length], ['name\nAmina 🌍\n', 300_000]);
    same((await failure(async () => new AdmZip(Buffer.from('no archive')))).message.includes('format'), true);
  },
];
