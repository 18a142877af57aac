// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package org.tensorflow.lite;

import androidx.annotation.NonNull;
import java.nio.ByteBuffer;
import java.util.Map;

public interface InterpreterApi extends AutoCloseable {
    static InterpreterApi create(@NonNull ByteBuffer byteBuffer, Options options) {
        throw new UnsupportedOperationException();
    }

    void runForMultipleInputsOutputs(@NonNull Object[] inputs, @NonNull Map<Integer, Object> outputs);

    int getOutputIndex(String opName);

    @Override
    void close();

    class Options {
        public Options setNumThreads(int numThreads) {
            throw new UnsupportedOperationException();
        }

        public Options addDelegate(Delegate delegate) {
            throw new UnsupportedOperationException();
        }
    }
}
