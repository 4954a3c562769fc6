// One row a device and window: the values of its last reading, and how many it sent.
//
// params: raw, downsampled (buckets), measurement, start, stop, window,
//         counted (a field that every reading has), optional (fields that need not be
//         in every reading: downsample_optional.flux writes those), tags (fixed tags)
// yields: one row a window, `_time` its start, `_value` the number of rows in it
//
// `aggregateWindow` straight after the filter is answered by the storage engine: it
// hands out one value a window and series instead of every reading. It does so only if
// nothing else reads from the same `from`, which is why `readings` is a function. And
// `contains` is asked of every row, so it is left out where no field is optional: it would
// cost more than a third of the whole.
import "experimental"

readings = () => from(bucket: params.raw)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement)

required = if length(arr: params.optional) == 0 then
    (tables=<-) => tables
else
    (tables=<-) => tables |> filter(fn: (r) => not contains(value: r._field, set: params.optional))

readings()
    |> aggregateWindow(every: params.window, fn: last, timeSrc: "_start", createEmpty: false)
    |> required()
    |> experimental.set(o: params.tags)
    |> to(bucket: params.downsampled)
    |> filter(fn: (r) => false)
    |> yield(name: "values")

readings()
    |> filter(fn: (r) => r._field == params.counted)
    |> aggregateWindow(every: params.window, fn: count, timeSrc: "_start", createEmpty: false)
    |> set(key: "_field", value: "readings")
    |> experimental.set(o: params.tags)
    |> to(bucket: params.downsampled)
    |> group(columns: ["_time"])
    |> count()
    |> group()
    |> yield(name: "rows")
