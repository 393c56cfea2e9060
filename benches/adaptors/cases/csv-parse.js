// package: npm:csv-parse@4 npm:csv-parse@5
// behind 4: bigquery, primero
// behind 5: common
// does: quotes, separators and types, piece by piece; an error's code
import * as csv from 'csv-parse';

// Version 4 is one function.
const parse = csv.parse ?? csv.default;

export default [
  async () => {
    const text = '\ufeffname;age\n"Amina; jr.";31\n"line one\nline ""two""";4\n';
    const options = { columns: true, delimiter: ';', bom: true, cast: (value, { column, header }) => (!header && column === 'age' ? +value : value) };
    const parser = parse(options);
    for (const character of text) parser.write(character);
    parser.end();
    const rows = [];
    for await (const row of parser) rows.push(row);
    same(rows, [{ name: 'Amina; jr.', age: 31 }, { name: 'line one\nline "two"', age: 4 }]);
    const all = () => new Promise((resolve, reject) => parse('a,b\n"open', (error, rows) => (error ? reject(error) : resolve(rows))));
    same((await failure(all)).code, 'CSV_QUOTE_NOT_CLOSED');
  },
];
