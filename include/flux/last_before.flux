// The last values of fields of every device in a range.
//
// params: downsampled (bucket), measurement, fields (at least one), start, stop
// yields: one table a field, one row per device with a value, `_time` the window's start
//
// As in neighbours.flux: one `from` a field, and few tables to join.
import "array"

last_of = (field) => from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == field)
    |> last()
    |> drop(columns: ["_start", "_stop", "_measurement"])
    |> group(columns: ["_field"])

tables = array.map(arr: params.fields, fn: (x) => last_of(field: x))

if length(arr: tables) == 1 then tables[0] else union(tables: tables)
