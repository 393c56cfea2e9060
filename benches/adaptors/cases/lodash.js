// package: npm:lodash@4
// behind: common, dhis2, fhir-ndr-et, medicmobile, motherduck, sftp
// does: collections, chains, paths, templates (generated code), deep copies
import _ from 'lodash';

export default [
  () => {
    const people = [{ name: 'Amina', age: 31 }, { name: 'Kofi', age: 4 }, { name: 'Ama', age: 4 }];
    same(_(people).filter({ age: 4 }).sortBy('name').map('name').value(), ['Ama', 'Kofi']);
    same(_.mapValues(_.groupBy(people, 'age'), group => group.length), { 4: 2, 31: 1 });
    same([_.get({ a: [{ b: 1 }] }, 'a[0].b'), _.camelCase('date of birth')], [1, 'dateOfBirth']);
    same(_.template('<% _.forEach(names, name => { %><b><%- name %></b><% }) %>')({ names: ['A&B', 'C'] }), '<b>A&amp;B</b><b>C</b>');
    const copy = _.cloneDeep({ at: new Date(0), set: new Set([1]) });
    same([_.isEqual(copy, { at: new Date(0), set: new Set([1]) }), copy.set.size], [true, 1]);
  },
];
