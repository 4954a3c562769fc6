// The newest computed window.
//
// params: quality (bucket), start, stop
// yields: one row, `_time` the window's start; none if no window of the range is computed
from(bucket: params.quality)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == "window" and r._field == "rows")
    |> last()
    |> keep(columns: ["_time"])
