// package: @openfn/language-mysql@4.1.3
// credential: mariadb
// does: creates a table, inserts, upserts, selects with a parameter, an error's code
sql('DROP TABLE IF EXISTS visits');
sql('CREATE TABLE visits (id INT PRIMARY KEY AUTO_INCREMENT, place VARCHAR(40) UNIQUE, seen DATE)');
insert('visits', { place: 'Accra', seen: '2026-01-02' });
upsertMany('visits', [{ place: 'Accra', seen: '2026-01-03' }, { place: "Tamale's", seen: null }]);
sql('SELECT place, CAST(seen AS CHAR) AS seen FROM visits WHERE place <> ? ORDER BY place', { values: ['nowhere'] });
fn(state => {
  same(state.data.result, [{ place: 'Accra', seen: '2026-01-03' }, { place: "Tamale's", seen: null }]);
  return state;
});
sql('SELEC 1').catch((error, state) => {
  same(error.code, 'ER_PARSE_ERROR');
  return state;
});
