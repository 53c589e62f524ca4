// Adam, for the engine `fast`; `_adam.py` compiles this file.
//
// Weight and moments are read and written once. Each element's numbers depend on nothing but its own and its gradient,
// so they are the same whichever other rows are updated, and with any number of threads.

static inline Vector root(Vector v) {  // GCC turns a loop over the lanes into as many calls
#if defined(CPU_CAPABILITY_AVX512)
  return (Vector)_mm512_sqrt_ps((__m512)v);
#elif defined(CPU_CAPABILITY_AVX2)
  return (Vector)_mm256_sqrt_ps((__m256)v);
#else
  for (int lane = 0; lane < LANES; ++lane) v[lane] = std::sqrt(v[lane]);
  return v;
#endif
}

// `_adam.py` has the same fields in the same order, and says what they are.
struct Step {
  float beta1, beta2, rest1, rest2, eps, step_size, correction, highest_step_size, smallest;
};

// One step for up to a vector of weights, whose gradient is g. Tells which of them would move at the highest rate still
// to come, or may still move if their gradient is 0 from now on.
static inline Mask adam(float* weight, float* exp_avg, float* exp_avg_sq, Vector g, const Step& s, Index count) {
  const Vector before = load(weight, count);
  const Vector m = load(exp_avg, count) * s.beta1 + g * s.rest1;
  const Vector v = load(exp_avg_sq, count) * s.beta2 + g * g * s.rest2;
  const Vector change = m / (root(v) / s.correction + s.eps);
  store(weight, before - change * s.step_size, count);
  store(exp_avg, m, count);
  store(exp_avg_sq, v, count);
  const Mask small = (Mask)(before < s.smallest) & (Mask)(before > -s.smallest);
  return (Mask)(before - change * s.highest_step_size != before) | (small & (Mask)(m != 0.0f));
}

// Rows `which` of [units, columns], or all where it is null; the gradient of a row is Σ units[image][row] · x[image].
// A thread takes `part_columns` of a row at a time. `moved[r · parts + part]` tells of the r-th of the rows whether `adam`
// names an element of that part.
extern "C" void update_rows(
    float* weight, float* exp_avg, float* exp_avg_sq, const Index* which, Index rows, Index columns, const float* units,
    Index all_units, const float* x, Index images, const Step* step, Index part_columns, bool* moved, Index threads) {
  const Step s = *step;
  const Index parts = (columns + part_columns - 1) / part_columns;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (Index r = 0; r < rows; ++r)
    for (Index part = 0; part < parts; ++part) {
      const Index row = which ? which[r] : r, begin = part * part_columns;
      const Index end = begin + part_columns < columns ? begin + part_columns : columns;
      Mask moving = {};
      for (Index column = begin; column < end; column += LANES) {
        const Index here = row * columns + column, count = end - column;
        Vector g = {};
        for (Index image = 0; image < images; ++image)
          g += units[image * all_units + row] * load(x + image * columns + column, count);
        moving |= adam(weight + here, exp_avg + here, exp_avg_sq + here, g, s, count);
      }
      bool any = false;
      for (int lane = 0; lane < LANES; ++lane) any |= moving[lane] != 0;
      if (moved) moved[r * parts + part] = any;
    }
}

// A parameter with its moments, in one order in memory. `_adam.py` has the same fields.
struct Parameter {
  float *weight, *exp_avg, *exp_avg_sq;
  Index size;
};

// Whole parameters, one after the other; each gradient is in the order of its parameter, or null to leave that out.
extern "C" void update_parameters(
    const Parameter* parameters, const float* const* gradients, Index count, const Step* step, Index threads) {
  const Step s = *step;
#pragma omp parallel num_threads(threads)
  for (Index i = 0; i < count; ++i) {
    const Parameter p = parameters[i];
    if (!gradients[i]) continue;
#pragma omp for schedule(static) nowait
    for (Index here = 0; here < p.size; here += LANES) {
      const Index left = p.size - here;
      adam(p.weight + here, p.exp_avg + here, p.exp_avg_sq + here, load(gradients[i] + here, left), s, left);
    }
  }
}

// Multiplies rows of a moment by a factor so many times, and rounds after each, as so many idle steps would.
extern "C" void decay_rows(
    float* moment, const Index* which, Index rows, Index columns, float factor, Index times, Index threads) {
  constexpr Index TOGETHER = 8;  // vectors; each product waits for the one before, so the CPU works on several
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index r = 0; r < rows; ++r)
    for (Index column = 0; column < columns; column += TOGETHER * LANES) {
      float* here = moment + which[r] * columns + column;
      const Index count = columns - column;
      Vector v[TOGETHER];
      for (Index i = 0; i < TOGETHER; ++i) v[i] = load(here + i * LANES, count - i * LANES);
      for (Index t = 0; t < times; ++t)
        for (Index i = 0; i < TOGETHER; ++i) v[i] *= factor;
      for (Index i = 0; i < TOGETHER; ++i) store(here + i * LANES, v[i], count - i * LANES);
    }
}
