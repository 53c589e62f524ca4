// Products of the rows of a large weight with a few inputs, for the engine `fast`; `_dots.py` compiles this file.
//
// The rows are read once, so their number of bytes decides about the time. Each product is computed in the same order
// whichever other rows are asked for, and by however many threads.

constexpr int UNITS = 4, IMAGES = 4, PARTS = 4;  // UNITS × IMAGES sums stay in registers, or IMAGES × PARTS

static inline Vector load(const std::int8_t* from, Index count) {
  if (count >= LANES) {  // GCC turns a loop over the lanes into as many instructions
#if defined(CPU_CAPABILITY_AVX512)
    return (Vector)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#elif defined(CPU_CAPABILITY_AVX2)
    return (Vector)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#endif
  }
  Vector v = {};
  for (Index lane = 0; lane < LANES && lane < count; ++lane) v[lane] = from[lane];
  return v;
}

// sums[image][unit] = Σ rows[unit][column] · x[image][column]
template <int B, typename Number>
static inline void dots(const Number* const* rows, const float* x, Index columns, float (*out)[UNITS]) {
  Vector sums[UNITS][B] = {};
  const auto add = [&](Index column, Index count) {
    Vector inputs[B];
    for (int b = 0; b < B; ++b) inputs[b] = load(x + b * columns + column, count);
    for (int u = 0; u < UNITS; ++u) {
      const Vector weights = load(rows[u] + column, count);
      for (int b = 0; b < B; ++b) sums[u][b] += weights * inputs[b];
    }
  };
  const Index whole = columns / LANES * LANES;
  for (Index column = 0; column < whole; column += LANES) add(column, LANES);
  if (whole < columns) add(whole, columns - whole);
  for (int u = 0; u < UNITS; ++u)
    for (int b = 0; b < B; ++b) {
      float total = 0;
      for (int lane = 0; lane < LANES; ++lane) total += sums[u][b][lane];
      out[b][u] = total;
    }
}

// The rows `which` of a weight whose rows lie `distance` numbers apart, or all where `which` is null; out [images, rows].
template <typename Number>
static void products(
    const Number* weight, Index distance, const Index* which, Index rows, const float* x, Index images, Index columns,
    float* out, Index threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index first = 0; first < rows; first += UNITS) {
    const Number* some[UNITS];
    for (Index u = 0; u < UNITS; ++u) {  // where fewer are left, the last one several times: the code is the same then
      const Index row = first + u < rows ? first + u : rows - 1;
      some[u] = weight + (which ? which[row] : row) * distance;
    }
    for (Index image = 0; image < images;) {
      float sums[IMAGES][UNITS];
      const Index count = images - image < IMAGES ? 1 : IMAGES;
      if (count == IMAGES)
        dots<IMAGES>(some, x + image * columns, columns, sums);
      else
        dots<1>(some, x + image * columns, columns, sums);
      for (Index b = 0; b < count; ++b, ++image)
        for (Index u = 0; u < UNITS && first + u < rows; ++u) out[image * rows + first + u] = sums[b][u];
    }
  }
}

// out[image][column] = Σ x[image][row] · weight[which[row]][column]; out [images, columns].
template <int B>
static inline void combine(
    const float* weight, Index distance, const Index* which, Index rows, const float* x, Index column, Index columns,
    float* out) {
  Vector sums[B][PARTS] = {};
  for (Index row = 0; row < rows; ++row) {
    const float* from = weight + (which ? which[row] : row) * distance + column;
    Vector v[PARTS];
    for (int part = 0; part < PARTS; ++part) v[part] = load(from + part * LANES, columns - column - part * LANES);
    for (int b = 0; b < B; ++b)
      for (int part = 0; part < PARTS; ++part) sums[b][part] += x[b * rows + row] * v[part];
  }
  for (int b = 0; b < B; ++b)
    for (int part = 0; part < PARTS; ++part)
      store(out + b * columns + column + part * LANES, sums[b][part], columns - column - part * LANES);
}

extern "C" void combinations(
    const float* weight, Index distance, const Index* which, Index rows, const float* x, Index images, Index columns,
    float* out, Index threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index column = 0; column < columns; column += PARTS * LANES) {
    Index image = 0;
    for (; image + IMAGES <= images; image += IMAGES)
      combine<IMAGES>(weight, distance, which, rows, x + image * rows, column, columns, out + image * columns);
    for (; image < images; ++image)
      combine<1>(weight, distance, which, rows, x + image * rows, column, columns, out + image * columns);
  }
}

extern "C" void products_float32(
    const float* weight, Index distance, const Index* which, Index rows, const float* x, Index images, Index columns,
    float* out, Index threads) {
  products(weight, distance, which, rows, x, images, columns, out, threads);
}

extern "C" void products_int8(
    const std::int8_t* weight, Index distance, const Index* which, Index rows, const float* x, Index images,
    Index columns, float* out, Index threads) {
  products(weight, distance, which, rows, x, images, columns, out, threads);
}
