// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core;

import androidx.annotation.NonNull;
import androidx.annotation.Nullable;
import androidx.camera.core.resolutionselector.ResolutionSelector;

public final class Preview extends UseCase {
    private Preview() {}

    public void setSurfaceProvider(@Nullable SurfaceProvider surfaceProvider) {
        throw new UnsupportedOperationException();
    }

    public int getTargetRotation() {
        throw new UnsupportedOperationException();
    }

    public void setTargetRotation(int targetRotation) {
        throw new UnsupportedOperationException();
    }

    public interface SurfaceProvider {
        void onSurfaceRequested(@NonNull SurfaceRequest request);
    }

    public static final class Builder {
        @NonNull
        public Builder setResolutionSelector(@NonNull ResolutionSelector resolutionSelector) {
            throw new UnsupportedOperationException();
        }

        @NonNull
        public Preview build() {
            throw new UnsupportedOperationException();
        }
    }
}
