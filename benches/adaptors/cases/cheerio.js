// package: npm:cheerio@1.0.0-rc.12
// behind: http, primero
// does: finds, changes and prints HTML and XML
import * as cheerio from 'cheerio';

export default [
  () => {
    const $ = cheerio.load('<table><tr><td>Amina</td><td>31</td></tr><tr><td>Kofi</td><td>4</td></tr></table>');
    same($('td:first-child').map((_, cell) => $(cell).text()).get(), ['Amina', 'Kofi']);
    $('tr').last().addClass('child').find('td').eq(1).text('5 & more');
    same($('tr.child').html(), '<td>Kofi</td><td>5 &amp; more</td>');
    const xml = cheerio.load('<list><item id="1"/></list>', { xmlMode: true });
    same([xml('item').attr('id'), xml.xml()], ['1', '<list><item id="1"/></list>']);
  },
];
