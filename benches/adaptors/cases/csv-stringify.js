// package: npm:csv-stringify@6
// behind: minio
// does: quotes, headers and separators, at once and through a stream
import { stringify } from 'csv-stringify';
import { stringify as atOnce } from 'csv-stringify/sync';

export default [
  async () => {
    const rows = [{ name: 'Amina; "jr."', age: 31 }, { name: 'Kofi', age: null }];
    const expected = 'name;age\n"Amina; ""jr.""";31\nKofi;\n';
    same(atOnce(rows, { header: true, delimiter: ';' }), expected);
    let text = '';
    for await (const chunk of stringify(rows, { header: true, delimiter: ';' })) text += chunk;
    same(text, expected);
  },
];
