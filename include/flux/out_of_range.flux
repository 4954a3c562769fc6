// The number of values of a field outside its plausible range.
//
// params: raw (bucket), measurement, start, stop, field, low, high
// yields: one row per device with such values, `_value` the number
from(bucket: params.raw)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.field)
    |> filter(fn: (r) => r._value < params.low or r._value > params.high)
    |> count()
    |> group()
