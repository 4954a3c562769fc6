// The last value of one field of every device before some moment.
//
// params: downsampled (bucket), measurement, field, start (how far to look back), stop
// yields: one row a device that has any, `_time` the window's start
from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.field)
    |> last()
    |> drop(columns: ["_start", "_stop", "_measurement", "_field"])
    |> group()
