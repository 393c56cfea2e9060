// package: npm:date-fns@2
// behind: common
// does: parses, formats, adds and compares, in two languages
import { addMonths, differenceInDays, eachDayOfInterval, format, formatDistance, isValid, parse, parseISO } from 'date-fns';
import { fr } from 'date-fns/locale/index.js';

export default [
  () => {
    const date = parse('24/12/2026 17:05', 'dd/MM/yyyy HH:mm', new Date(0));
    same(format(date, "yyyy-MM-dd'T'HH:mm EEEE"), '2026-12-24T17:05 Thursday');
    same(format(date, 'd MMMM yyyy', { locale: fr }), '24 décembre 2026');
    same(format(addMonths(parseISO('2026-01-31'), 1), 'yyyy-MM-dd'), '2026-02-28');
    same(differenceInDays(parseISO('2026-03-01'), parseISO('2026-02-01')), 28);
    same(eachDayOfInterval({ start: parseISO('2026-01-01'), end: parseISO('2026-01-03') }).length, 3);
    same([formatDistance(0, 3 * 86_400_000), isValid(parseISO('2026-13-01'))], ['3 days', false]);
  },
];
