// package: @openfn/language-common
// does: CSV, dates, lodash, JSONPath; a schema checked by generated code; GET and POST
fn(state => ({ ...state, data: 'name,born\nAmina,01/03/1995\nKofi,24/12/2020\n', seen: [] }));
parseCsv($.data, { columns: true }, (state, rows) => {
  state.rows = rows;
  return state;
});
each('$.rows[*]', fn(state => {
  state.seen.push([_.upperFirst(state.data.name), dateFns.format(dateFns.parse(state.data.born, 'dd/MM/yyyy', new Date()), 'yyyy-MM-dd')]);
  return state;
}));
fn(state => {
  same(state.seen, [['Amina', '1995-03-01'], ['Kofi', '2020-12-24']]);
  same(dataValue('a[?(@.n > 1)].n')({ data: { a: [{ n: 1 }, { n: 2 }] } }), 2);
  return { ...state, data: { age: 'three' } };
});
validate({ type: 'object', properties: { age: { type: 'number' } } }, 'data');
fn(state => {
  same(state.validationErrors.length, 1);
  return state;
});
http.post($.configuration.http + '/echo/there', { id: 7 });
fn(state => {
  same([state.data.method, state.data.body], ['POST', '{"id":7}']);
  return state;
});
