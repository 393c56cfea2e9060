// package: npm:xlsx@0.18.5
// behind: commcare, gmail, msgraph, surveycto
// does: writes a workbook and reads it back, in four formats; dates, formulas, a damaged file
import xlsx from 'xlsx';

export default [
  () => {
    const rows = [{ name: 'Amina', born: new Date(Date.UTC(1995, 2, 1)), age: 31 }, { name: 'Kofi 🌍', age: 4 }];
    const sheet = xlsx.utils.json_to_sheet(rows, { cellDates: true });
    sheet.C4 = { t: 'n', f: 'SUM(C2:C3)', v: 35 };
    sheet['!ref'] = 'A1:C4';
    const book = xlsx.utils.book_new();
    xlsx.utils.book_append_sheet(book, sheet, 'Patients');
    for (const bookType of ['xlsx', 'xlsb', 'biff8', 'ods']) {
      const file = xlsx.write(book, { type: 'buffer', bookType });
      const read = xlsx.read(file, { type: 'buffer', cellDates: true });
      same(read.SheetNames, ['Patients']);
      const back = xlsx.utils.sheet_to_json(read.Sheets.Patients);
      same([back[0].name, back[0].born.getFullYear(), back[1].name, back[2].age], ['Amina', 1995, 'Kofi 🌍', 35]);
    }
    same(xlsx.utils.sheet_to_csv(xlsx.read('a;b\n1;2\n', { type: 'string' }).Sheets.Sheet1), 'a,b\n1,2');
    let damaged;
    try {
      xlsx.read(Buffer.from('PK\u0003\u0004 and no more'), { type: 'buffer' });
    } catch (error) {
      damaged = error;
    }
    same(damaged instanceof Error, true);
  },
];
