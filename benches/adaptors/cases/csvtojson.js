// package: npm:csvtojson@2
// behind: common
// does: columns, nested ones and types, from text and piece by piece
import csv from 'csvtojson';

export default [
  async () => {
    const text = 'name,address.city,age\n"Amina, jr.",Accra,31\nKofi,Tamale,4\n';
    const rows = [{ name: 'Amina, jr.', address: { city: 'Accra' }, age: 31 }, { name: 'Kofi', address: { city: 'Tamale' }, age: 4 }];
    same(await csv({ checkType: true }).fromString(text), rows);
    const converter = csv({ checkType: true });
    converter.write(text.slice(0, 30));
    converter.end(text.slice(30));
    same(await converter, rows);
    same(await csv({ noheader: true, output: 'csv' }).fromString('1,2'), [['1', '2']]);
  },
];
