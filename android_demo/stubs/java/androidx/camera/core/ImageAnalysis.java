// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core;

import androidx.annotation.NonNull;
import androidx.camera.core.resolutionselector.ResolutionSelector;
import java.util.concurrent.Executor;

public final class ImageAnalysis extends UseCase {
    public static final int STRATEGY_KEEP_ONLY_LATEST = 0;
    public static final int OUTPUT_IMAGE_FORMAT_RGBA_8888 = 2;

    private ImageAnalysis() {}

    public void setAnalyzer(@NonNull Executor executor, @NonNull Analyzer analyzer) {
        throw new UnsupportedOperationException();
    }

    public void clearAnalyzer() {
        throw new UnsupportedOperationException();
    }

    public int getTargetRotation() {
        throw new UnsupportedOperationException();
    }

    public void setTargetRotation(int targetRotation) {
        throw new UnsupportedOperationException();
    }

    public interface Analyzer {
        void analyze(@NonNull ImageProxy image);
    }

    public static final class Builder {
        @NonNull
        public Builder setBackpressureStrategy(int strategy) {
            throw new UnsupportedOperationException();
        }

        @NonNull
        public Builder setOutputImageFormat(int outputImageFormat) {
            throw new UnsupportedOperationException();
        }

        @NonNull
        public Builder setOutputImageRotationEnabled(boolean outputImageRotationEnabled) {
            throw new UnsupportedOperationException();
        }

        @NonNull
        public Builder setResolutionSelector(@NonNull ResolutionSelector resolutionSelector) {
            throw new UnsupportedOperationException();
        }

        @NonNull
        public ImageAnalysis build() {
            throw new UnsupportedOperationException();
        }
    }
}
