// package: npm:jszip@3
// behind: gmail
// does: writes an archive and reads it back, a damaged one
import JSZip from 'jszip';

export default [
  async () => {
    const zip = new JSZip();
    zip.folder('data').file('patients.csv', 'name\nAmina 🌍\n');
    zip.file('big', Buffer.alloc(300_000, 'x'));
    const packed = await zip.generateAsync({ type: 'nodebuffer', compression: 'DEFLATE' });
    same(packed.length < 3000, true);
    const read = await JSZip.loadAsync(packed);
    same(Object.keys(read.files), ['data/', 'data/patients.csv', 'big']);
    same(await read.file('data/patients.csv').async('string'), 'name\nAmina 🌍\n');
    same((await read.file('big').async('uint8array')).length, 300_000);
    same((await failure(() => JSZip.loadAsync('no archive'))).message.includes('zip file'), true);
  },
];
